"""A trial's network as files for others: exports, the model card, the grade, the hand-in zip."""
