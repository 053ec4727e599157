"""Figures, tables and panels for notebooks."""
