import { Check, Copy } from 'lucide-react';
import { useEffect, useState } from 'react';
import { IconButton } from './button';
import { cn } from './cn';

/** Copies; says so. Works without a secure context too, where the clipboard's own interface is missing. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.setAttribute('readonly', '');
    area.style.position = 'fixed';
    area.style.opacity = '0';
    document.body.append(area);
    area.select();
    // The only way on pages that are not served over https.
    // eslint-disable-next-line @typescript-eslint/no-deprecated
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

export function CopyButton({
  text,
  label = 'Copy',
  className,
}: {
  text: string;
  label?: string;
  className?: string | undefined;
}) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <IconButton
      size="sm"
      label={copied ? 'Copied' : label}
      icon={copied ? Check : Copy}
      className={className}
      onClick={() => {
        void copyText(text).then(setCopied);
      }}
    />
  );
}

export function InlineCode({ children, className }: { children: string; className?: string | undefined }) {
  return (
    <code className={cn('rounded-sm bg-sunken px-1 py-0.5 font-mono text-[0.92em] break-words', className)}>
      {children}
    </code>
  );
}

export function CodeBlock({ code, label, wrap = false }: { code: string; label?: string; wrap?: boolean }) {
  return (
    <div className="group relative rounded-lg border border-line bg-sunken">
      {/* Scrollable, so it takes the keyboard's focus. */}
      <pre
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        aria-label={label}
        className={cn(
          'overflow-x-auto rounded-lg p-3 pr-12 font-mono text-sm text-fg focus-inset',
          wrap && 'break-words whitespace-pre-wrap',
        )}
      >
        <code>{code}</code>
      </pre>
      <CopyButton text={code} className="absolute top-1.5 right-1.5 bg-sunken" />
    </div>
  );
}
