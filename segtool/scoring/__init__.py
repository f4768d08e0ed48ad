"""From predictions to scores: one confusion matrix over a data set, and every number and table that follows from it."""
