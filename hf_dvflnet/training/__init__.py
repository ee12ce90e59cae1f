"""Training and distillation with transformers' Trainer, and what a run survives."""
