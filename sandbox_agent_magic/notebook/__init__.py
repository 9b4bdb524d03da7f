"""Cells: built from steps (`cells`), chosen (`keep`), published as a mimetype (`publish`), expanded (`expand`)."""
