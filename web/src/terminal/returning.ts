/** What the browser tells of the network and of somebody who comes back, as a connection needs it. */

export type Returning = {
  /** Worth a try at once; `anew`: one that is under way began without a network. */
  retry: (anew: boolean) => void;
  /** The network is gone. */
  lost: () => void;
  /** Somebody looks at this page again. */
  seen: () => void;
};

/** Listen until the returned function is called. */
export function watchReturns({ retry, lost, seen }: Returning): () => void {
  const ending = new AbortController();
  const { signal } = ending;
  const back = () => {
    retry(false);
    seen();
  };
  window.addEventListener('online', () => retry(true), { signal });
  window.addEventListener('offline', lost, { signal });
  window.addEventListener('focus', back, { signal });
  window.addEventListener('pageshow', back, { signal });
  document.addEventListener(
    'visibilitychange',
    () => {
      if (document.visibilityState === 'visible') back();
    },
    { signal },
  );
  return () => ending.abort();
}
