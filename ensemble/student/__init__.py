"""Distillation of an ensemble into one student, in one process or many."""
