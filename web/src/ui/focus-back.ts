import { useRef } from 'react';

/** What had the focus; of a menu, the button that opened it, since the menu itself is about to go. */
function focusedNow(): HTMLElement | null {
  const focused = document.activeElement;
  const button = focused?.closest('[role=menu]')?.getAttribute('aria-labelledby') ?? null;
  const found = button === null ? focused : document.getElementById(button);
  return found instanceof HTMLElement ? found : null;
}

/** For a dialog that no button of its own opens: the focus goes back to where it was. */
export function useFocusBack(after?: () => void) {
  const before = useRef<HTMLElement>(null);
  return {
    onOpenAutoFocus: () => {
      before.current = focusedNow();
    },
    onCloseAutoFocus: (event: Event) => {
      event.preventDefault();
      if (before.current?.isConnected === true) before.current.focus({ preventScroll: true });
      after?.();
    },
  };
}
