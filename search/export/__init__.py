"""A trial's network as files that leave: exports, its card, its grade, the hand-in zip."""
