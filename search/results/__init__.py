"""Optuna's trials as plain records, and tables made from them."""
