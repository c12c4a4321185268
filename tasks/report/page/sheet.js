"use strict";

/* A sheet of many cells of which only those on the screen exist: rows and columns of one size each, headers that stay,
   one cell in the tab order that the arrow keys move. It knows nothing about what is in a cell. */
blora.Sheet = class {
  constructor(scroller, callbacks) {
    this.scroller = scroller;
    this.callbacks = callbacks; // has(row, column), fill(element, row, column), fillHead(...), open(row, column)
    this.canvas = blora.element("div", { className: "canvas", role: "presentation" });
    scroller.append(this.canvas);
    this.rows = new Map();
    this.active = { row: 0, column: 0 };
    this.size = { rows: 0, columns: 0, width: 1, height: 1, left: 0, top: 0 };
    scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
    scroller.addEventListener("keydown", (event) => this.onKey(event));
    scroller.addEventListener("focusin", (event) => this.onFocus(event));
    scroller.addEventListener("click", (event) => this.onClick(event));
  }

  /* Set how many cells of which size there are, in pixels; `left` and `top` are the sizes of the headers, 0 for none. */
  layout(size) {
    const focused = this.canvas.contains(document.activeElement);
    this.size = size;
    this.canvas.style.width = `${size.left + size.columns * size.width}px`;
    this.canvas.style.height = `${size.top + size.rows * size.height}px`;
    this.scroller.setAttribute("aria-rowcount", size.rows + (size.top ? 1 : 0));
    this.scroller.setAttribute("aria-colcount", size.columns + (size.left ? 1 : 0));
    this.canvas.replaceChildren();
    this.rows.clear();
    if (!this.callbacks.has(this.active.row, this.active.column)) this.active = { row: 0, column: 0 };
    this.head = null;
    if (size.top) {
      this.head = blora.element("div", { className: "head", role: "row", "aria-rowindex": 1 });
      this.head.style.height = `${size.top}px`;
      this.headCells = new Map();
      this.canvas.append(this.head);
      this.headCells.set(-1, this.corner());
    }
    this.draw();
    if (focused) this.ensure(this.active.row, this.active.column)?.focus({ preventScroll: true });
  }

  corner() {
    const cell = blora.element("div", { className: "corner", role: "columnheader", "aria-colindex": 1 });
    cell.style.width = `${this.size.left}px`;
    this.callbacks.fillHead(cell, -1, -1);
    this.head.append(cell);
    return cell;
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = requestAnimationFrame(() => {
      this.scheduled = 0;
      this.draw();
    });
  }

  visible() {
    const { rows, columns, width, height, left, top } = this.size;
    const { scrollTop, scrollLeft, clientWidth, clientHeight } = this.scroller;
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    return {
      firstRow: clamp(Math.floor(scrollTop / height) - 1, rows),
      lastRow: clamp(Math.ceil((scrollTop + clientHeight - top) / height) + 1, rows),
      firstColumn: clamp(Math.floor(scrollLeft / width) - 1, columns),
      lastColumn: clamp(Math.ceil((scrollLeft + clientWidth - left) / width) + 1, columns),
    };
  }

  draw() {
    const seen = this.visible();
    const wanted = (row, column) =>
      (row >= seen.firstRow && row < seen.lastRow && column >= seen.firstColumn && column < seen.lastColumn) ||
      (row === this.active.row && column === this.active.column);
    for (const [row, made] of this.rows) {
      for (const [column, cell] of made.cells) {
        if (wanted(row, column)) continue;
        cell.remove();
        made.cells.delete(column);
      }
      if (made.cells.size) continue;
      made.element.remove();
      this.rows.delete(row);
    }
    for (let row = seen.firstRow; row < seen.lastRow; row += 1) {
      for (let column = seen.firstColumn; column < seen.lastColumn; column += 1) this.ensure(row, column);
    }
    this.ensure(this.active.row, this.active.column);
    if (this.head) this.drawHead(seen);
  }

  drawHead(seen) {
    for (const [column, cell] of this.headCells) {
      if (column < 0 || (column >= seen.firstColumn && column < seen.lastColumn)) continue;
      cell.remove();
      this.headCells.delete(column);
    }
    for (let column = seen.firstColumn; column < seen.lastColumn; column += 1) {
      if (this.headCells.has(column)) continue;
      const cell = blora.element("div", { className: "reference", role: "columnheader", "aria-colindex": column + 2 });
      cell.style.left = `${this.size.left + column * this.size.width}px`;
      cell.style.width = `${this.size.width}px`;
      this.head.append(cell);
      this.headCells.set(column, cell);
      this.callbacks.fillHead(cell, -1, column);
    }
  }

  ensureRow(row) {
    if (this.rows.has(row)) return this.rows.get(row);
    const { top, height, left } = this.size;
    const element = blora.element("div", { className: "row", role: "row", "aria-rowindex": row + 1 + (top ? 1 : 0) });
    element.style.top = `${top + row * height}px`;
    element.style.height = `${height}px`;
    if (left) {
      const head = blora.element("div", { className: "reference", role: "rowheader", "aria-colindex": 1 });
      head.style.width = `${left}px`;
      element.append(head);
      this.canvas.append(element);
      this.callbacks.fillHead(head, row, -1);
    } else {
      this.canvas.append(element);
    }
    const made = { element, cells: new Map() };
    this.rows.set(row, made);
    return made;
  }

  ensure(row, column) {
    if (row >= this.size.rows || !this.callbacks.has(row, column)) return null;
    const { cells, element } = this.ensureRow(row);
    if (cells.has(column)) return cells.get(column);
    const { left, width } = this.size;
    const cell = blora.element("div", { className: "cell", role: "gridcell" });
    cell.setAttribute("aria-colindex", column + 1 + (left ? 1 : 0));
    cell.tabIndex = row === this.active.row && column === this.active.column ? 0 : -1;
    cell.style.left = `${left + column * width}px`;
    cell.style.width = `${width}px`;
    cell.dataset.row = row;
    cell.dataset.column = column;
    element.append(cell);
    cells.set(column, cell);
    this.callbacks.fill(cell, row, column);
    return cell;
  }

  /* Fill the cells that exist anew, such as after a decision. */
  refresh() {
    for (const [row, made] of this.rows) {
      for (const [column, cell] of made.cells) this.callbacks.fill(cell, row, column);
    }
  }

  activate(row, column) {
    const before = this.rows.get(this.active.row)?.cells.get(this.active.column);
    if (before) before.tabIndex = -1;
    this.active = { row, column };
    const cell = this.ensure(row, column);
    if (cell) cell.tabIndex = 0;
    return cell;
  }

  /* Make a cell the active one, scroll it into view, and focus it. */
  go(row, column, focus = true) {
    if (row < 0 || row >= this.size.rows || column < 0) return;
    if (!this.callbacks.has(row, column)) column = this.lastColumn(row); // the last row may be shorter
    const { width, height, left, top } = this.size;
    const { scroller } = this;
    scroller.scrollTop = this.within(top + row * height, height, scroller.scrollTop, scroller.clientHeight, top);
    scroller.scrollLeft = this.within(left + column * width, width, scroller.scrollLeft, scroller.clientWidth, left);
    this.draw();
    const cell = this.activate(row, column);
    if (focus && cell) cell.focus({ preventScroll: true });
  }

  /* The scroll position nearest to `offset` that shows [start, start + length) beside a header of `head`. */
  within(start, length, offset, extent, head) {
    return Math.max(start + length - extent, Math.min(offset, start - head));
  }

  onFocus(event) {
    const cell = event.target.closest(".cell");
    if (cell) this.activate(Number(cell.dataset.row), Number(cell.dataset.column));
  }

  onClick(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const [row, column] = [Number(cell.dataset.row), Number(cell.dataset.column)];
    this.activate(row, column)?.focus({ preventScroll: true });
    this.callbacks.open(row, column);
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { row, column } = this.active;
    const { rows, columns } = this.size;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.size.height) - 1);
    const last = rows - 1;
    const moves = {
      ArrowLeft: column > 0 || this.size.left ? [row, column - 1] : [row - 1, columns - 1],
      ArrowRight: column < columns - 1 || this.size.left ? [row, column + 1] : [row + 1, 0],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      PageUp: [Math.max(0, row - page), column],
      PageDown: [Math.min(last, row + page), column],
      Home: [0, 0],
      End: [last, this.lastColumn(last)],
    };
    if (event.key in moves) this.go(...moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.callbacks.open(row, column);
    else return;
    event.preventDefault();
  }

  lastColumn(row) {
    let column = this.size.columns - 1;
    while (column > 0 && !this.callbacks.has(row, column)) column -= 1;
    return column;
  }
};
