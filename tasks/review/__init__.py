"""Looking at what was made: the page of a run, decisions about its pictures, comparisons, nights over time.

report.py      the page of a run, in the store or as a copy     gather.py      its data      thumbnails.py  its pictures
decisions.py   keep, reject, redo: checked, kept, last one wins  redo.py       another picture in a rejected one's stead
compare.py     the same pairs in two runs                        crossed.py    how sure a mean difference is
nights.py      yield, scores, cost and faults a night; drift     pages.py charts.py  HTML and SVG; page/ has the files
"""
