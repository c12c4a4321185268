"use strict";

/* Thumbnails come in pages, script files that call `add`. A page is asked for when one of its pictures is on the
   screen, the one asked for last first, and not at all if its pictures have been scrolled away before its turn. */
blora.thumbnails = (() => {
  const pages = []; // name of a page, the number of its first picture
  let count = 0;
  for (const [name, pictures] of blora.data.thumbnails) {
    pages.push([name, count]);
    count += pictures;
  }
  const AT_ONCE = 6;
  const loaded = new Map(); // name of a page -> its pictures, base64
  const waiting = new Map(); // name of a page -> [img, number on the page]
  const asked = new Set();
  let running = 0;

  const put = (image, text) => {
    if (text) image.src = `data:image/webp;base64,${text}`;
    else image.classList.add("unreadable");
  };

  const settle = (name) => {
    running -= 1;
    waiting.delete(name);
    next();
  };

  const request = (name) => {
    asked.add(name);
    running += 1;
    const script = document.createElement("script");
    script.src = `thumbnails/${name}.js`;
    script.onload = () => {
      script.remove();
      settle(name);
    };
    script.onerror = () => {
      script.remove();
      asked.delete(name); // asked for again when it is next on the screen
      settle(name);
    };
    document.head.append(script);
  };

  function next() {
    const names = [...waiting.keys()].reverse();
    for (const name of names) {
      if (running >= AT_ONCE) return;
      if (asked.has(name)) continue;
      if (waiting.get(name).some(([image]) => image.isConnected)) request(name);
      else waiting.delete(name);
    }
  }

  /* The name of the page that holds picture `number`, and its place there. */
  const find = (number) => {
    let [low, high] = [0, pages.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (pages[middle][1] <= number) low = middle;
      else high = middle - 1;
    }
    return [pages[low][0], number - pages[low][1]];
  };

  return {
    /* Show thumbnail `number` in an <img>, now or when its page is there. */
    show(image, number) {
      const [name, place] = find(number);
      if (loaded.has(name)) {
        put(image, loaded.get(name)[place]);
        return;
      }
      const others = waiting.get(name) || [];
      waiting.delete(name);
      waiting.set(name, [...others, [image, place]]);
      queueMicrotask(next);
    },
    add(name, pictures) {
      loaded.set(name, pictures);
      for (const [image, place] of waiting.get(name) || []) put(image, pictures[place]);
    },
  };
})();
