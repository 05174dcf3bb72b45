"""Fits: what a run gives back, a file a kind; tables, trees and terms of them, and whether their program is still the same."""
