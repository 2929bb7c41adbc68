"""The report of a study: its page, tables, insights and figures."""
