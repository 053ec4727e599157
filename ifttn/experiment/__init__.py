"""Recipes, training, evaluation, tables: the study."""
