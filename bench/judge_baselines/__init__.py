"""What the judge is compared with: MiniLM with logistic regression, nearest neighbours, length, chance."""
