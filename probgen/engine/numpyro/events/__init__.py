"""Programs as functions of standard normal noise, in which the draws that make an event are looked for."""
