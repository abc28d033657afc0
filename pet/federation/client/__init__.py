"""The client of a federation server: signed requests, and what their answers say. Knows neither server nor peer."""
