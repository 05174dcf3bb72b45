"""Fits: what a run gives back, a file a kind; tables, trees and predictions of them."""
