"""Curvature as products with vectors."""
