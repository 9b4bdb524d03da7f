"""What requests cost: list prices, and a book of every request across notebooks and days."""
