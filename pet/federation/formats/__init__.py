"""What is read and written: encodings, tables, signed requests, invitations, stored records. Knows no statistic, no peer."""
