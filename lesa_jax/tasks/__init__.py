"""Benchmarks of EleutherAI's lm-evaluation-harness, run by this software's models."""
