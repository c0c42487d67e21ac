"""Training a network: fine-tuning, distillation, averaging, and how steps are executed."""
