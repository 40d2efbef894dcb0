/** What is left of the window above a soft keyboard. */

import { useEffect, type RefObject } from 'react';

/** Keep an element's lower edge above the soft keyboard, where the window does not shrink for it. */
export function useAboveKeyboard(element: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const viewport = window.visualViewport;
    if (viewport === null) return undefined;
    const place = () => {
      const root = element.current;
      if (root === null) return;
      // Measured without our own limit. A pinched page is left alone: the keyboard is not the reason.
      root.style.maxHeight = '';
      const bottom = viewport.offsetTop + viewport.height;
      const { top, bottom: own } = root.getBoundingClientRect();
      if (viewport.scale <= 1.01 && own > bottom + 1 && bottom > top)
        root.style.maxHeight = `${bottom - top}px`;
    };
    viewport.addEventListener('resize', place);
    viewport.addEventListener('scroll', place);
    return () => {
      viewport.removeEventListener('resize', place);
      viewport.removeEventListener('scroll', place);
    };
  }, [element]);
}
