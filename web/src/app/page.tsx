import { ChevronRight } from 'lucide-react';
import { createContext, use, useEffect, useRef, type ReactNode } from 'react';
import { createPortal } from 'react-dom';
import { Link, NavigationType, useLocation, useNavigationType } from 'react-router';
import { cn } from '@/ui/cn';
import { useAttention } from './attention';

/** The places of the top bar that a screen fills. */
export type TopbarPlaces = { trail: HTMLElement | null; actions: HTMLElement | null };
export const TopbarContext = createContext<TopbarPlaces>({ trail: null, actions: null });

export type Crumb = { label: ReactNode; to: string };

export type PageProps = {
  /** The screen's name: the last crumb, the heading, and the browser tab's title. */
  title: string;
  /** Shown in place of the title in the top bar, where more than text belongs there. */
  heading?: ReactNode;
  crumbs?: readonly Crumb[];
  actions?: ReactNode;
  /** `full`: no margins and no scrolling of its own, for workspaces. */
  layout?: 'narrow' | 'wide' | 'full';
  children: ReactNode;
};

const LAYOUTS = {
  narrow: 'mx-auto w-full max-w-3xl px-4 py-6 md:px-6 md:py-8',
  wide: 'mx-auto w-full max-w-6xl px-4 py-6 md:px-6 md:py-8',
};

/** One screen: names itself in the top bar and in the browser's tab, and takes the focus after a move. */
export function Page({ title, heading, crumbs = [], actions, layout = 'wide', children }: PageProps) {
  const { trail, actions: actionsPlace } = use(TopbarContext);
  const waiting = useAttention().length;
  return (
    <>
      <title>{`${waiting > 0 ? `(${waiting}) ` : ''}${title} · Craftastic`}</title>
      {trail && createPortal(<Trail title={title} heading={heading} crumbs={crumbs} />, trail)}
      {actionsPlace && actions !== undefined && createPortal(actions, actionsPlace)}
      {layout === 'full' ? (
        <div className="flex min-h-0 flex-1 flex-col">{children}</div>
      ) : (
        <div className="min-h-0 flex-1 overflow-y-auto">
          <div className={LAYOUTS[layout]}>{children}</div>
        </div>
      )}
    </>
  );
}

/** Whether a screen was shown since the page was loaded. */
let shownBefore = false;

function Trail({
  title,
  heading,
  crumbs,
}: Required<Pick<PageProps, 'title' | 'crumbs'>> & { heading: ReactNode }) {
  const h1 = useRef<HTMLHeadingElement>(null);
  const { pathname } = useLocation();
  const how = useNavigationType();
  const before = useRef<string>(undefined);
  useEffect(() => {
    // After a move, who hears the page is told where they are; not when it is loaded, where the browser does.
    const moved = shownBefore || how !== NavigationType.Pop;
    if (before.current !== pathname && moved && document.activeElement === document.body) h1.current?.focus();
    before.current = pathname;
    shownBefore = true;
  }, [pathname, how]);
  return (
    <div className="flex min-w-0 items-center gap-1.5">
      {crumbs.length > 0 && (
        <nav aria-label="Breadcrumb" className="hidden min-w-0 md:block">
          <ol className="flex min-w-0 items-center gap-1.5">
            {crumbs.map((crumb) => (
              <li key={crumb.to} className="flex min-w-0 items-center gap-1.5">
                <Link
                  to={crumb.to}
                  className="max-w-48 truncate rounded-sm text-base text-fg-2 hover:text-fg"
                >
                  {crumb.label}
                </Link>
                <ChevronRight aria-hidden className="size-3.5 shrink-0 text-fg-3" />
              </li>
            ))}
          </ol>
        </nav>
      )}
      <h1 ref={h1} tabIndex={-1} className="min-w-0 truncate text-base font-semibold">
        {heading ?? title}
      </h1>
    </div>
  );
}

/** A heading within a screen, with what belongs at its right end. */
export function Section({
  title,
  aside,
  className,
  children,
}: {
  title: string;
  aside?: ReactNode;
  className?: string | undefined;
  children: ReactNode;
}) {
  return (
    <section aria-label={title} className={cn('mb-8', className)}>
      <div className="mb-2 flex min-h-7 items-center justify-between gap-3">
        <h2 className="text-sm font-semibold text-fg-2">{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}
