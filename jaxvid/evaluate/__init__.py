"""The evaluation of sets of videos, and of runs on held-out clips."""
