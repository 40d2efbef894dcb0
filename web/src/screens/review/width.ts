import { useEffect, useState } from 'react';

/** An element's width in pixels as it changes; 0 before it is there. Give `setElement` as its `ref`. */
export function useWidth(): { width: number; setElement: (element: HTMLElement | null) => void } {
  const [element, setElement] = useState<HTMLElement | null>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry) setWidth(Math.floor(entry.contentRect.width));
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [element]);
  return { width, setElement };
}
