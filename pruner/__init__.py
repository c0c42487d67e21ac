"""Prune and retrain one MobileNetV2: one network in, one network out.

Usable alone, from a notebook; knows nothing of studies, databases, plots or the command line. The flow:
`recipe` (what to do) -> `importance` (a score per channel) -> `channels` (a plan: exactly which channels stay, and the
cut network) -> `fine_tune` -> `measure` -> `export`.
"""
