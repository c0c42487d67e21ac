"""Search how far MobileNetV2 can be pruned: studies, trials, their storage, figures and command line.

Knows nothing of channels; it asks Optuna for recipes, has `pruner` carry them out, and keeps what came out.
"""
