import { useState } from 'react';

/** A piece of the page's own state that this browser keeps under `craftastic.KEY`. */
export function useStored<T>(
  key: string,
  initial: T,
  accept: (value: unknown) => value is T,
): [T, (value: T) => void] {
  const [value, setValue] = useState<T>(() => {
    try {
      const parsed: unknown = JSON.parse(localStorage.getItem(`craftastic.${key}`) ?? 'null');
      return accept(parsed) ? parsed : initial;
    } catch {
      return initial;
    }
  });
  return [
    value,
    (next) => {
      setValue(next);
      try {
        localStorage.setItem(`craftastic.${key}`, JSON.stringify(next));
      } catch {
        // Storage is closed or full: the choice lives as long as the page.
      }
    },
  ];
}

export const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean';
export const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'string');
