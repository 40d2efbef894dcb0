import type { KeyboardEvent } from 'react';

/** Enter sends, Shift+Enter makes a new line; an Enter that ends a composed character does neither. */
export function submitOnEnter(send: () => void): (event: KeyboardEvent<HTMLElement>) => void {
  return (event) => {
    if (event.key !== 'Enter' || event.nativeEvent.isComposing) return;
    if (event.shiftKey || event.altKey) return;
    event.preventDefault();
    send();
  };
}
