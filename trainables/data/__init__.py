"""A data set's path: source files → decoded images → cache → splits."""
