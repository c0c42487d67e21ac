"""Show a study in the browser: optuna-dashboard with notes, figures and files."""
