# Tables as R writes them: every kind of column, missing values, and each function that writes CSV.
table <- data.frame(
  age = c(30L, NA, 41L, 65L, 58L),
  bmi = c(22.5, 31.25, NA, 19.875, 1e-3),
  smoker = c(TRUE, FALSE, NA, TRUE, FALSE),
  ward = factor(c("A \"north\"", "B, south", NA, "A \"north\"", "C\nannex")),
  seen = as.Date(c("2020-01-31", "2021-12-01", NA, "2020-02-29", "2019-07-04"))
)
write.csv(table, "write_csv.csv")
write.csv(table, "write_csv_no_row_names.csv", row.names = FALSE)
write.csv(table, "write_csv_crlf.csv", row.names = FALSE, eol = "\r\n")
write.csv(table, "write_csv_cr.csv", row.names = FALSE, eol = "\r")
write.csv(table, "write_csv_na_empty.csv", row.names = FALSE, na = "")
write.csv(table, "write_csv_utf16.csv", row.names = FALSE, fileEncoding = "UTF-16LE")
write.csv2(table, "write_csv2.csv", row.names = FALSE)
write.table(table, "write_table_tab.txt", sep = "\t", row.names = FALSE, qmethod = "double")
