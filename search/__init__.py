"""Search how far MobileNetV2 can be pruned: studies, trials, their storage, figures and command line.

This package knows nothing of channels: it samples recipes with Optuna, has `pruner` carry them out, and stores the
results.
"""
