"use strict";

/* Thumbnails come in pages, script files that call `add`. A page is asked for when one of its pictures is on the
   screen, the one asked for last first, and not at all if its pictures have been scrolled away before its turn. */
blora.thumbnails = (() => {
  const PAGE_SIZE = blora.data.pageSize;
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

  return {
    /* Show thumbnail `number` in an <img>, now or when its page is there. */
    show(image, number) {
      const [name, place] = [blora.data.thumbnails[Math.floor(number / PAGE_SIZE)], number % PAGE_SIZE];
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
