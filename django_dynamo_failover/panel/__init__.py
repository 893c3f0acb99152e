"""The health panel: what it asks, what it makes of the answers, and what it can do."""
