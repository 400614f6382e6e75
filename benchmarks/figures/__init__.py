"""The figures of the results page, each a function from the JSON of a benchmark."""
