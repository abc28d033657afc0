"""The sums of rows and what follows from them: schema, statistics, analyses, contracts. Knows no peer and no request."""
