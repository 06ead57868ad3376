"""Colour maps and panels for people."""
