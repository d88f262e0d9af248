"""What attention changes, measured: where networks look and are hit, the loss around images, frequencies, explanations.

`where`, `surface`, `frequency` and `sanity` take arrays and models; `measured` runs them on a study and keeps what they
give; `summary` turns that into tables with intervals and into sentences; `charts` draws it.
"""
