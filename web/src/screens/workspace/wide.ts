import { useSyncExternalStore } from 'react';

const media = window.matchMedia('(min-width: 768px)');

function subscribe(listener: () => void): () => void {
  media.addEventListener('change', listener);
  return () => media.removeEventListener('change', listener);
}

/** Whether there is room for more than one thing side by side. */
export function useWide(): boolean {
  return useSyncExternalStore(subscribe, () => media.matches);
}
