"""Sheets of pictures, for a person's eye: all of them lie on one grid.

grid.py           the one layout          contact_sheet.py  contents by styles, with what they refer to along the edges
strips.py         sweeps, a row each      run_sheet.py      the contact sheet of a run
clip_sheet.py     clips side by side, moving
lettering.py      texts of all scripts on any of them
"""
