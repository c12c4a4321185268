"""Adapters to pictures: batches in which every row is a draw of its own, and colours that follow another picture."""
