"""Probabilities of events, rare ones too, and expectations, under the law of any fit."""
