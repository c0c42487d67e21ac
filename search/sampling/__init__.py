"""Sampling a trial's parameters, and stopping trials early."""
