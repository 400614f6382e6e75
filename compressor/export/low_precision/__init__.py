"""Files in fewer bits: int8 and half precision, each judged against the file it was made of."""
