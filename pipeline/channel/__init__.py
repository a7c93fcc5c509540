"""The acoustic channel between a mouth and a recording: rooms, noise, bands, codecs.

A track is float64 in [-1, 1], shape [samples].
"""
