"""What requests cost: list prices, and a book of every request across notebooks and days."""

from .book import BY, By, Entry, Ledger, Total
from .report import CostReport, dollars, money

__all__ = ["BY", "By", "CostReport", "Entry", "Ledger", "Total", "dollars", "money"]
