"""From data frames to what a reader sees: figures, tables, sentences and the page of a run."""
