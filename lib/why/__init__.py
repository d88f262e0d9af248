"""What attention changes, measured: where networks look and are hit, the loss around images, frequencies, explanations.

`where`, `surface`, `frequency` and `sanity` take arrays and models. `measured` runs them on a study, on the images of
`looked_at`, and keeps what they give. `summary` and `conclusions` turn that into tables with intervals and into
sentences; `charts` draws the tables, with pictures from `panels`.
"""
