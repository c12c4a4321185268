"""Which pictures are good: what people say of them, and which of several candidates is delivered.

decisions.py    keep, reject, redo: checked, kept, last one wins    redo.py         another in a rejected one's stead
score_order.py  which score decides, the same everywhere            score_table.py  scores as people read them
best.py         the best of the candidates of each picture          score_filter.py conditions that pictures meet
"""
